"""What happened at a boot: the event log, and reports made from it. The agent writes the log and never reads it."""
