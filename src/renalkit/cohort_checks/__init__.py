"""Whether a cohort can be trusted: leak, duplicate, label and shortcut guards."""
