"""Run by ``animica_hooks.store.schema``, which gives it the connection to use."""

from alembic import context

from animica_hooks.store.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # The caller has begun the transaction and ends it.
    transactional_ddl=False,
)
context.run_migrations()
