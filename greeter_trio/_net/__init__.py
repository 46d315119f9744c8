"""What brings a byte stream here: sockets, listeners, connecting, TLS, the PROXY protocol.

It knows no greeter, and imports nothing from the rest of the package.
"""
