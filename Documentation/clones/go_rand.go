// SPDX-License-Identifier: MIT OR Apache-2.0

// Draws by Go's crypto/rand or math/rand/v2, whichever is asked for: each line on standard
// input is answered with one on standard output, 16 bytes in hexadecimal.
package main

import (
	"bufio"
	crypto "crypto/rand"
	"fmt"
	math "math/rand/v2"
	"os"
)

func fromCrypto() string {
	var bytes [16]byte
	crypto.Read(bytes[:]) // It never fails.
	return fmt.Sprintf("%x", bytes)
}

func fromMath() string {
	return fmt.Sprintf("%016x%016x", math.Uint64(), math.Uint64())
}

func main() {
	sources := map[string]func() string{"crypto": fromCrypto, "math": fromMath}
	if len(os.Args) != 2 || sources[os.Args[1]] == nil {
		fmt.Fprintf(os.Stderr, "Usage: %s crypto|math\n", os.Args[0])
		os.Exit(2)
	}
	draw := sources[os.Args[1]]
	for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
		fmt.Println(draw())
	}
}
