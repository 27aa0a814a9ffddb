"""What the apps of these tests share."""

import os
import threading

from sqlalchemy import Column, Integer, MetaData, String, Table

# What handlers have done, in the order in which they did it.
done = Table(
    "done",
    MetaData(),
    Column("n", Integer, primary_key=True),
    Column("handler", String(20), nullable=False),
    Column("event_id", String(20), nullable=False),
    Column("schema_known", String(20), nullable=False),  # to the process that did it
)


def end_with_the_test() -> None:
    """Die when whoever started this is gone, however that ended: its end of the pipe closes."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(9)

    threading.Thread(target=wait, daemon=True).start()
