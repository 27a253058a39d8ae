"""The task distributions. Installed, and to be imported, as `tinymaml.tasks`."""

if __name__ == "tasks":
    raise ImportError("'tasks' is not a module of its own: import it as 'tinymaml.tasks'")
