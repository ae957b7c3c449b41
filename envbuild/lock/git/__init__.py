"""Git repositories as sources of distributions: a revision resolved to a commit, its tree as an archive."""
