"""The suites of others, run on real mounts: pjdfstest and unionmount-testsuite."""
