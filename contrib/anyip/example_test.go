package anyip_test

import (
	"context"
	"log"
	"net/netip"

	"uplinkd/contrib/anyip"
)

// An echo server on all addresses that the router has, those of a local route among them.
func ExampleListenUDP() {
	conn, err := anyip.ListenUDP(context.Background(), "[::]:7")
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 1500)
	for {
		n, client, asked, err := conn.ReadFrom(b)
		if err != nil {
			log.Fatal(err)
		}
		if _, err = conn.WriteTo(b[:n], client, asked); err != nil {
			log.Print(err)
		}
	}
}

// A connection from any address of the prefix.
func ExampleDial() {
	from := anyip.Random(netip.MustParsePrefix("2001:db8:0:100::/64"))
	conn, err := anyip.Dial(context.Background(), "tcp", from, "[2001:db8::1]:443")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
}
