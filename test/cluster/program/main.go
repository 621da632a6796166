// What the images of these tests hold. `hold` (without arguments): writes the digests of the image's layer files, then stays
// until it is told to go. `fetch URL [PROXY]`: writes the status of one request, and fails where there is no answer.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "fetch" {
		fetch(os.Args[2:])
		return
	}
	files, _ := filepath.Glob("/layer-*")
	for _, file := range files {
		bytes, err := os.ReadFile(file)
		if err != nil {
			fail(err)
		}
		fmt.Printf("%s %x\n", filepath.Base(file), sha256.Sum256(bytes))
	}
	fmt.Println("holding")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}

func fetch(args []string) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if len(args) > 1 {
		proxy, err := url.Parse(args[1])
		if err != nil {
			fail(err)
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	response, err := client.Get(args[0])
	if err != nil {
		fail(err)
	}
	fmt.Println(response.StatusCode)
}

func fail(err error) {
	fmt.Println(err)
	os.Exit(1)
}
