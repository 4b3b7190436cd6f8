"""Resource controllers: what an author writes, what a description file says, and how both are run and checked."""
