"""`make bench`: measures the data path, beside other servers and alone."""
