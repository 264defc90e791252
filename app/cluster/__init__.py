"""The application as replicas of an engine for clusters, Ray Serve. All but the bridge needs the extra `scale`."""
