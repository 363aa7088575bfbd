"""The conformance kit as third parties use it: a pytest plugin, and a real metastore for executors that need one."""
