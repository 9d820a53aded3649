"""The console: pages for operators and support, under `/console`.

It is a client of the API. Each page is made of answers of `/api/v1`, asked for with the rights of the person who is
signed in (`api.console.asking`), and each button is a form that asks the API to act. So permissions, the audit log, the
masking of credentials and the words of errors exist once. Every page works without scripts.
"""
