"""The web app: pages over one document's store, on loopback, while others train. No torch in this process.

`app` puts the pages together, `security` keeps strangers out, `desk` is each page's way to the document and its store,
`server` runs it all. A tab is one module with a router and its templates.
"""
