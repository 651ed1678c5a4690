// Command console is the front door of services that are processes of their own.
package main

import (
	"github.com/shipledger/shipledger/services/compose"
	"github.com/shipledger/shipledger/services/compose/doorpart"
)

// version is set by the build.
var version = "dev"

func main() { compose.Run("console", version, doorpart.New) }
