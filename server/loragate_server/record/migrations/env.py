"""Run by Alembic: applies the steps over the connection that `migrate` hands it."""

from alembic import context

from loragate_server.record.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
