// Package httpapi is the one HTTP edge of every service: it executes the
// OpenAPI document of package schemas.
//
// It exists so that routing, authentication, permission, validation and error
// bodies are decided in one place and by the published document: a service
// hands over a handler per operationId and deals with domain values only. What
// the document does not name is not served, and what it names must have a
// handler.
//
// Checks are made in the order of contract 1.13:
//
//	path 404 → declared length 413 → authentication 401 → rate limit 429
//	→ kind and scope 403 → method 405 → query 422 → handler
//
// Faults become statuses in exactly one table, in problem.go.
package httpapi
