"""Makes the WordPiece vocabulary of a folder of questions: `python3 scripts/build_vocabulary.py data/trec` writes `vocab.txt` there.

Pieces are the special ones, every character that the training part shows, and then, until there are `--size`, the most frequent pair of
neighbouring pieces as one (byte-pair encoding, Sennrich et al. 2015, arXiv:1508.07909; of equal pairs the first in the alphabet), so frequent
words end up whole. The last 500 lines are for testing and are not looked at.
"""
import argparse
import collections
import pathlib
import re

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--size", type=int, default=4096)
    args = parser.parse_args()
    lines = (args.folder / "train_5500.label").read_text("latin-1").lower().split("\n")
    lines = [line for line in lines if line.strip()][:-500]
    counts = collections.Counter(word for line in lines for word in re.findall(r"[^\W_]+|[^\w\s]|_", line.split(maxsplit=1)[1]))
    words = {word: [word[0]] + ["##" + c for c in word[1:]] for word in counts}
    pieces = SPECIAL + sorted({piece for cut in words.values() for piece in cut})
    pairs, places = collections.Counter(), collections.defaultdict(set)

    def count(word, sign):
        for pair in zip(words[word], words[word][1:]):
            pairs[pair] += sign * counts[word]
            places[pair].add(word)

    for word in words:
        count(word, 1)
    while len(pieces) < args.size and pairs:
        first, second = pair = min(pairs, key=lambda p: (-pairs[p], p))
        joined = first + second.removeprefix("##")
        pieces.append(joined) if joined not in pieces else None
        for word in places.pop(pair):
            count(word, -1)
            cut, at = words[word], 0
            while at + 1 < len(cut):
                if (cut[at], cut[at + 1]) == pair:
                    cut[at:at + 2] = [joined]
                at += 1
            count(word, 1)
        del pairs[pair]
    (args.folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")


if __name__ == "__main__":
    main()
