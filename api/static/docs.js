"use strict";
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  // A key that stayed in the browser would be there for whoever comes after.
  persistAuthorization: false,
  validatorUrl: null,
});
