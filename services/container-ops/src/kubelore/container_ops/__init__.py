"""Inside the containers: logs that last, commands, terminals and files."""
