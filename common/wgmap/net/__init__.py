"""Links, routes and addresses: a pure difference and its netlink executor."""
