"""An HTTP/1.1 server for ASGI applications: requests, answers, connections and limits on them."""
