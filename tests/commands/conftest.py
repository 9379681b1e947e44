from tests.tasks.conftest import registries  # noqa: F401  (a fixture)
