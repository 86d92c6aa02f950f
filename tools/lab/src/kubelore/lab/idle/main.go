// Idle waits for SIGTERM or SIGINT and ends well. It is the pause container of the lab's pods, and the only
// file in its image without a shell.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("idle: waiting")
	fmt.Println("idle: ended by", <-ended)
}
