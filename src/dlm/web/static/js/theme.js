// The colours chosen here, set before the first paint. Loaded in the head, without `defer`, for that reason.
"use strict";
(() => {
  const kept = (() => {
    try {
      return localStorage.getItem("dlm-theme");
    } catch {
      return null; // storage switched off: the system's choice holds
    }
  })();
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
})();
