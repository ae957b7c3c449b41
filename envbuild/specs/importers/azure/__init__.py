"""Azure Machine Learning: environments, jobs and assets of both SDKs."""
