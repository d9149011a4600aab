"""Alembic's entry: runs the scripts on the connection that `services.store.database` passes in; no ini file.

Must never import: anything of this project but the tables' metadata.
"""

from alembic import context

from services.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
# No `begin_transaction`: the caller's transaction holds everything, so a failed migration leaves nothing
# behind.
context.run_migrations()
