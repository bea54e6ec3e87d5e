// Characters that act instead of showing (control characters, marks that turn the writing direction) as visible escapes.

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** The text as it may be shown; as `plain` of dlm/web/pages.py. */
export function plain(text) {
  return text.replace(UNSEEN, (sign) => {
    const code = sign.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
