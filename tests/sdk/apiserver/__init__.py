"""The server that the SDK's tests speak to: four APIs over real HTTP, which misbehaves on request.

``APIServer`` is the process's server. Each test gets a ``Space`` of it: base URLs of its own, a
script of steps (``steps``) that its requests meet one by one, and a record of what arrived::

    space.script(steps.error(429, headers={"retry-after": "1"}), steps.normal())
    client = Animica(api_key=space.key, base_url=space.animica)
    ...
    assert 2 == len(space.requests)
"""

from apiserver import steps
from apiserver.running import APIServer
from apiserver.space import Recorded, Space
from apiserver.steps import Hold

__all__ = ["APIServer", "Hold", "Recorded", "Space", "steps"]
