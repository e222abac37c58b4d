"""A hostile client: raw sockets against an endpoint, to see that nothing one client does hurts another."""
