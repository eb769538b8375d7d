"""The live device: event loop, sockets, clock, files; it carries out what core decides."""
