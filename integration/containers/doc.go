// Package containers starts whole systems from the images of deploy/images, as
// the files of deploy/compose say, and kills, pauses and cuts off their parts.
// Run it by `make integration-containers`.
package containers
