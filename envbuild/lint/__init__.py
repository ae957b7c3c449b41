"""What is doubtful in a spec, by stable codes."""
