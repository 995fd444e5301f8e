"""Federation across machines: the kit's methods as a Flower app (optional extra ``flower``).

There is no algorithm in here. A SuperNode trains its clients with the kit's local training (`node`), the
server aggregates with the method's own pure function (`rounds`), and what travels are named arrays (`wire`).
`peers` is the server's side of the messages, `client` and `server` are the two apps, `bundle` writes the
folder that Flower takes, `launch` starts a whole federation on this machine. See docs/flower.md.
"""
