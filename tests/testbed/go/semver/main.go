// Command semver prints the answers of Masterminds/semver, which Flux and Helm use, for a table of ranges and versions:
//
//	cd tests/testbed/go/semver && go run . > ../../../vectors/semver.json
//
// The unit test of the ranges in src/attachment/sets compares every answer.
package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/Masterminds/semver/v3"
)

var versions = strings.Fields(`
0.0.0 0.0.1 0.0.3 0.0.4 0.1.0 0.2.0 0.2.3 0.2.4 0.3.0 1.0.0 1.0.1 1.1.0 1.2.0 1.2.2 1.2.3 1.2.4 1.3.0 1.4.0 1.4.9 1.5.0 1.8.13 1.9.0 1.10.0 2.0.0
2.3.4 3.0.0 11.0.0 11.1.0 11.1.1 11.2.0 12.0.0
0.0.0-0 0.1.0-alpha 1.0.0-0 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.2.3-1 1.2.3-rc.1 1.2.4-rc.1
1.3.0-rc.1 2.0.0-0 2.0.0-rc.1 1.8.13-alpine 1.8.13-debian-12-r3 12.0.0-rc.1
v1.2.3 v0.2.3 v1.2.3-rc.1
1 1.2 1.2.3.4 01.2.3 1.02.3 1.2.03 v v1 latest 1.2.x 1.2.3-01 1.2.3- 1.2.3-a..b 18446744073709551615.0.0 18446744073709551616.0.0 V1.2.3 vv1.2.3
1.2.3-rc_1 2026.11.29 2026.11.29-1
`)

var ranges = []string{
	"1.2.3", "=1.2.3", "= 1.2.3", "v1.2.3", "!=1.2.3", "!= 1.2.3", ">1.2.3", "> 1.2.3", "<1.2.3", ">=1.2.3", "=>1.2.3", "<=1.2.3", "=<1.2.3",
	"~1.2.3", "~>1.2.3", "^1.2.3", "~ 1.2.3", "^ 1.2.3",
	"1", "1.2", "1.x", "1.X", "1.*", "1.2.x", "1.2.*", "1.x.x", "1.x.3", "x", "*", "X", "x.x.x", "v1.x",
	"=1", "=1.2", "!=1", "!=1.2", "!=1.2.x", "!=1.x", "!=x", ">1", ">1.2", ">11", ">11.1", ">x", ">1.x", "<1", "<1.2", "<2.x", "<x", ">=1", ">=1.2",
	">=x", "<=1", "<=1.2", "<=1.x", "<=11", "<=11.1", "<=x", "<=0.2", "<=0",
	"~1", "~1.2", "~1.x", "~x", "~0", "~0.0", "~0.0.0", "~0.1", "~0.2.3", "~*", "~>2", "~>2.x", "~2.3",
	"^1", "^1.2", "^1.x", "^x", "^*", "^0", "^0.0", "^0.0.0", "^0.0.3", "^0.1", "^0.2.3", "^0.2", "^0.x", "^0.0.x", "^11.1",
	">=1.0.0-0", ">=1.0.0-alpha", ">1.0.0-alpha.1", "<=1.0.0-rc.1", "=1.2.3-rc.1", "!=1.2.3-rc.1", "~1.2.3-0", "^1.2.3-0", "^0.0.0-0", "~0.0.0-0",
	"1.2.x-0", "1.x-0", "*-0", "x-0", ">*-0", "!=1.2-0", "<2.0.0-0", "<=1.2-0", "1.2.3-1", ">=1.2.3-rc.1 <1.3.0",
	">=1.2.0, <2.0.0", ">=1.2.0,<2.0.0", ">=1.2.0 , <2.0.0", ">=1.2.0 <2.0.0", ">=1.2.0   <2.0.0", ">=1.2.0 <2.0.0 !=1.5.0", ">= 1.2.0 < 2.0.0",
	">=1.0.0-0 <2.0.0", ">=1.0.0 <2.0.0-0", "1.2.3 1.2.4", "1.x 1.2.x", "1, 2",
	"1.2.x || 2.x", "1.2.x||2.x", "1.2.3 || 1.2.4 || >=11", "<1.0.0 || >=2.0.0", ">=1.0.0-0 || 0.x", "1.x || >=2.0.0-0 <3.0.0", "^1.2 || ~0.2",
	"1.2.3 - 2.3.4", "1.2 - 1.4", "1 - 2", "1.2.3 - 2", "1.0.0-0 - 1.2.3", "1.2.3 - 2.0.0-rc.1", "v1.2.3 - v2.3.4", "1.2 - 1.4 || 11.x", "1.2 - 1.4 !=1.3.0",
	"0.2 - 1.2, !=1.0.0", "1.2.3  -  2.3.4", "1.x - 2.x",
	" 1.2.3", "1.2.3 ", " >=1.0.0 ", "01.2.3", "~01.2", "1.2.3+build", ">=1.2.3+build.7",
	"18446744073709551615.x", "18446744073709551616.x",
	"latest", ">=", ">=latest", "1.2.3.4", ">=1.2.3.4", "1.2.3,", ",1.2.3", "1.2.3,,1.2.4", "1.2.3 ||", "|| 1.2.3", "||", "1..2", "1.", ".1", "a.b.c", ">>1", "><1",
	"1.2.3 -2.0.0", "1.2.3- 2.0.0", "1.2.3 -", "- 1.2.3", "1.2.3-", "1.2.3-rc..1", "1.2.3-01", ">=1.0.0<2.0.0", "V1.2.3", "vv1.2.3", "1.2.y", "^^1.2.3", "! 1.2.3",
	"=v1.2.3", ">=v1.0.0", "<v2", "~v1.2", "==1.2.3", "1.2.3 | 1.2.4", "(1.2.3)", "[1.2,2.0)",
}

// table has one line for each range: for each version 1 if the range holds it, 0 if not, - if the version is none; null for a text that
// is no range.
type table struct {
	Versions []string           `json:"versions"`
	Ranges   map[string]*string `json:"ranges"`
}

func main() {
	result := table{Versions: versions, Ranges: map[string]*string{}}
	for _, text := range ranges {
		constraint, err := semver.NewConstraint(text)
		if err != nil {
			result.Ranges[text] = nil
			continue
		}
		var line strings.Builder
		for _, tag := range versions {
			line.WriteByte(answer(constraint, tag))
		}
		answers := line.String()
		result.Ranges[text] = &answers
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(result); err != nil {
		panic(err)
	}
}

// answer does what Flux's ImagePolicy does with a tag: three numbers are required, and a leading v is allowed.
func answer(constraint *semver.Constraints, tag string) byte {
	version, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
	switch {
	case err != nil:
		return '-'
	case constraint.Check(version):
		return '1'
	default:
		return '0'
	}
}
