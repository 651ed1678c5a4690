// Package schemas embeds the system's contracts. It imports nothing of ours.
package schemas
