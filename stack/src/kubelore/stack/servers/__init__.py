"""NATS and MongoDB on this machine, as the embedded stack and the tests run them.

`async with NatsServer(directory) as nats:` starts one with credentials of its
own on a free port and stops it at the end; `kill` and `restart` keep port,
credentials and data.
"""

from kubelore.stack.servers.base import Server
from kubelore.stack.servers.mongo_engine import Engine, secantus_engine
from kubelore.stack.servers.mongo_server import MongoServer
from kubelore.stack.servers.nats_server import Account, NatsServer

__all__ = ["Account", "Engine", "MongoServer", "NatsServer", "Server", "secantus_engine"]
