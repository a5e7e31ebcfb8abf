import { HpackError } from './hpack-error.ts';

/** Code lengths in bits of the 256 octets, one base-36 digit each (RFC 7541, appendix B; the code is canonical). */
const LENGTH_DIGITS =
  'dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777777777' +
  '77878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmo' +
  'lmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrq';

/** The end-of-string symbol: its prefix pads the last octet, the whole of it must not appear. */
const EOS = 256;
const EOS_LENGTH = 30;
const LONGEST = 30;

type HuffmanCode = { readonly length: number; readonly code: number };

/** The code of every octet, and of EOS at 256. */
export const HUFFMAN_CODES: readonly HuffmanCode[] = assignCodes();

/** For each length: its first code, the place of that code's symbol in `symbols`, and how many codes it has. */
const firstCode = new Uint32Array(LONGEST + 1);
const firstPlace = new Uint16Array(LONGEST + 1);
const codeCount = new Uint16Array(LONGEST + 1);
const symbols = bySymbolOrder();
for (const [place, symbol] of symbols.entries()) {
  const { length, code } = HUFFMAN_CODES[symbol]!;
  if (codeCount[length] === 0) {
    firstCode[length] = code;
    firstPlace[length] = place;
  }
  codeCount[length]! += 1;
}

function codeLength(symbol: number): number {
  return symbol === EOS ? EOS_LENGTH : Number.parseInt(LENGTH_DIGITS[symbol]!, 36);
}

function bySymbolOrder(): number[] {
  return Array.from({ length: EOS + 1 }, (_, symbol) => symbol).sort(
    (a, b) => codeLength(a) - codeLength(b) || a - b,
  );
}

/** Codes grow by one from symbol to symbol, and are shifted left where the length grows. */
function assignCodes(): HuffmanCode[] {
  const codes: HuffmanCode[] = [];
  let code = 0;
  let length = 0;
  for (const symbol of bySymbolOrder()) {
    code *= 2 ** (codeLength(symbol) - length);
    length = codeLength(symbol);
    codes[symbol] = { length, code };
    code += 1;
  }
  return codes;
}

/**
 * Decodes a Huffman string of HPACK to its octets as a latin1 string. The result has at most 8/5 of the input's length.
 * @throws HpackError when EOS appears, or the padding is longer than 7 bits or not all ones.
 */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string {
  const octets = Buffer.allocUnsafe(Math.floor(((end - start) * 8) / 5));
  let written = 0;
  let code = 0;
  let length = 0;
  for (let i = start; i < end; i++) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((bytes[i]! >> bit) & 1);
      length += 1;
      const offset = code - firstCode[length]!;
      if (offset >= 0 && offset < codeCount[length]!) {
        const symbol = symbols[firstPlace[length]! + offset]!;
        if (symbol === EOS) throw new HpackError('end-of-string symbol in a string');
        octets[written++] = symbol;
        code = 0;
        length = 0;
      }
    }
  }
  if (length > 7 || code !== 2 ** length - 1) throw new HpackError('bad Huffman padding');
  return octets.toString('latin1', 0, written);
}
