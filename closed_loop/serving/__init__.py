"""The policy as a server: openpi's websocket protocol, the server, the node's end of it, and the child process."""
