"""The five components, each a folder of one shape: messages, machine, service, settings, README."""
