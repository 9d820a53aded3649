"""Message formats: email as MIME and for vendors' APIs, mailboxes and headers, SMS segments."""
