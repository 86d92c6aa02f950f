"""The contracts by which services know each other: typed endpoints, events and identities.

Services import nothing of one another; what they may say on the bus stands
here. Structures are msgspec structs (msgpack on the wire), since they are
encoded and decoded on every request. Adding a field with a default is
compatible; anything else is a new subject version.
"""
