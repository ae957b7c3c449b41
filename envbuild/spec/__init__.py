"""What was asked for: reads people's files into :class:`envbuild.spec.model.Spec`."""
