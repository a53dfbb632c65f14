package id

var adjectives = []string{
	"able", "amber", "ample", "azure", "blithe", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "clear", "clever",
	"coral", "cosy", "crisp", "deft", "eager", "early", "easy", "even", "fair", "fleet", "fond", "frank", "free", "fresh", "gentle",
	"glad", "golden", "grand", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow",
	"merry", "mild", "neat", "nimble", "noble", "patient", "placid", "plucky", "proud", "quick", "quiet", "rapid", "ready", "royal",
	"salty", "serene", "sharp", "silver", "sleek", "smooth", "snug", "solid", "spry", "stable", "steady", "stout", "sturdy", "sunny",
	"swift", "tidy", "trim", "trusty", "upbeat", "vivid", "warm", "wise", "witty",
}

// nouns are ships, their parts, winds and ports of the Indian Ocean, where dhows sail.
var nouns = []string{
	"aden", "anchor", "baghlah", "barque", "basra", "beam", "boom", "bosun", "bow", "breeze", "brig", "buoy", "cabin", "calicut",
	"capstan", "caravel", "cargo", "cleat", "clipper", "compass", "cove", "current", "cutter", "davit", "deck", "dock", "felucca",
	"galley", "ganja", "goa", "gulf", "gunwale", "halyard", "harbour", "hatch", "hawser", "helm", "hold", "hormuz", "hull", "jahazi",
	"jib", "keel", "ketch", "kilwa", "knot", "lagoon", "lamu", "lateen", "ledger", "lookout", "malindi", "mast", "mombasa", "monsoon",
	"muscat", "oar", "pilot", "pinnace", "port", "prow", "quay", "reef", "rigging", "rudder", "sail", "sambuk", "schooner", "sextant",
	"skiff", "sloop", "sohar", "spar", "stern", "surat", "tide", "tiller", "wake", "windlass", "yawl", "zanzibar",
}
