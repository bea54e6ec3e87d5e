// A page that has nothing to show yet looks again when there is something.
import { goOn } from "./shell.js";

const again = () => goOn(location.pathname + location.search);

document.addEventListener("dlm:changed", (event) => {
  if (event.detail.runs || event.detail.data) again();
});
document.addEventListener("dlm:reset", again);
