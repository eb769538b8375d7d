"""The protocol, pure: no event loop, no clock, no sockets, no chance but the injected one."""
