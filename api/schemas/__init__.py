"""The shapes of requests and answers: they validate, and OpenAPI is made from them."""
