"""What turns a plan into a Dockerfile and its build context."""
