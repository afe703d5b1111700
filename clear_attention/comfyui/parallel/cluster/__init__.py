"""CLEAR Cluster: one picture on several machines; Ray places the workers, a group connects them."""
