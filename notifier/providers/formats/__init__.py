"""Message formats: email as MIME and as vendors take it, mailboxes and headers, segments of SMS."""
